"""What makes files of this repository; not shipped."""
