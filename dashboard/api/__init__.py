"""The JSON API under `/api/v1`: thin handlers; what is shown comes from `dashboard.views`, what is wrong from `dashboard.problems`."""
