"""Copies of a store elsewhere: where they lie (`vault`) and how they are taken (`take`)."""
