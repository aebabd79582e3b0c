"""The code that S3 and Glacier share: the client, uploads in parts, ranged reads."""
