"""What Redoubt controls on a host, as one document with a digest; what differs."""
