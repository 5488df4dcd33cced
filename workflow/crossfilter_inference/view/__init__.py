"""Output for people and other programs: the page, pictures, contact sheets, the report, exports."""
