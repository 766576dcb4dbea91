"""Shops and vouchers."""
