"""What people look at and take away: the page, pictures, contact sheets, the report, exports."""
