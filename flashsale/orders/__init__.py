"""From the stream to MySQL, and the status of an order on the way."""
