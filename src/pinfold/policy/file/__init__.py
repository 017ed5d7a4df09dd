"""Policy files: read, checked, explained; and those that come with the package."""
