import app.home_folder  # noqa: F401 - before any library looks for one
