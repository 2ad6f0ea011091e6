"""SQLite, the farm's only truth: schema, migrations, the writer of status, the requests of users, and readers."""
