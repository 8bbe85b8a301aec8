"""Running a study: a trial's evaluation, the session, stop rules, the local driver; ``ray`` alone imports Ray."""
