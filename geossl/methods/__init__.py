"""Self-supervised methods: one file each, behind one protocol."""
