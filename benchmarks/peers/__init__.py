"""The contenders' workers, each as its own documentation says it should be written."""
