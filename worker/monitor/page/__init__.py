"""The page: what `vec exporter` serves to browsers at `/` (extra `web`). It changes nothing.

    snapshot.py   what is read from Redis, in one value
    shared.py     one snapshot for all browsers, read again every few seconds
    history.py    what was read earlier, at most a day of it
    letters.py    some dead letters of one collection
    map.py        the vectors of one collection as points
    bar.py, plots.py, words.py   from these values to what is drawn and said: pure functions
    app.py        addresses and headers
    rendering.py  the templates

Templates are in `templates`; the one style sheet and the one script in `static`. Everything is
readable without the script, which only looks again and copies commands.
"""
