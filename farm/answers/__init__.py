"""What the HTTP API answers, as typed values: the dashboard makes them, `farm.client` reads them. One copy for both.

Times are wall seconds since 1970, durations seconds, sizes GiB and pixels. `None` means "not known".
"""
