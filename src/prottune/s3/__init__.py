"""S3 servers: who we are to them, whom we trust, and files that go there and come back whole."""
