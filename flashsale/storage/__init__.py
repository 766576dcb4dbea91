"""Redis by role and MySQL: drivers, their errors and the tables end here."""
