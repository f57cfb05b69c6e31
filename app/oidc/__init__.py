"""What an OpenID Connect provider says of who signs in: asked for, and checked."""
