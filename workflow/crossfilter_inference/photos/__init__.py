"""Files, before anything is known of models: from folders to pixels."""
