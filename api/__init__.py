"""The edge: web application, OAuth server, command line and everything that composes the parts."""
