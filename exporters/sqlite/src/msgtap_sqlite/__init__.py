"""The exporter ``sqlite``: every call of this user's programs in one file on this machine."""
