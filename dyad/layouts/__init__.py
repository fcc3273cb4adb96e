"""One reader per dataset layout on disk; `processed` is the product's own."""
