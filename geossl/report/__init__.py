"""One self-contained HTML page that shows what a project did and honestly what was gained."""
