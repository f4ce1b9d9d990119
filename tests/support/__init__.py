"""What several tests share: made data, servers, browsers, references, plug-ins."""
