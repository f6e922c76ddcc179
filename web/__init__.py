"""What stands between the web server and the pages: the opened installation, and sign-in by a link."""
