"""What the server does beside answering requests: delivering mail, and tidying up."""
