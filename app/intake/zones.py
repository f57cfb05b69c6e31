"""Abbreviations of time zones that mean one offset, and no other.

What means several (IST: India, Israel, Ireland; BST: Britain, Bangladesh; AST, GST) is not here.
The North American ones are those of RFC 5322, section 4.3; the others are from the tz database,
https://www.iana.org/time-zones.
"""

from datetime import timedelta, timezone, tzinfo

from dateutil import tz

_HOURS = {
    "UTC": 0,
    "GMT": 0,
    "UT": 0,
    "Z": 0,
    "WET": 0,
    "WEST": 1,
    "WAT": 1,
    "CET": 1,
    "MEZ": 1,
    "CEST": 2,
    "MESZ": 2,
    "EET": 2,
    "EEST": 3,
    "CAT": 2,
    "SAST": 2,
    "EAT": 3,
    "MSK": 3,
    "TRT": 3,
    "IDT": 3,
    "IRST": 3.5,
    "AFT": 4.5,
    "SAMT": 4,
    "PKT": 5,
    "YEKT": 5,
    "UZT": 5,
    "NPT": 5.75,
    "OMST": 6,
    "MMT": 6.5,
    "NOVT": 7,
    "KRAT": 7,
    "WIB": 7,
    "ICT": 7,
    "WITA": 8,
    "HKT": 8,
    "SGT": 8,
    "PHT": 8,
    "AWST": 8,
    "IRKT": 8,
    "WIT": 9,
    "JST": 9,
    "KST": 9,
    "YAKT": 9,
    "ACST": 9.5,
    "ACDT": 10.5,
    "AEST": 10,
    "VLAT": 10,
    "AEDT": 11,
    "NZST": 12,
    "NZDT": 13,
    "NST": -3.5,
    "NDT": -2.5,
    "ADT": -3,
    "EST": -5,
    "EDT": -4,
    "CST": -6,
    "CDT": -5,
    "MST": -7,
    "MDT": -6,
    "PST": -8,
    "PDT": -7,
    "AKST": -9,
    "AKDT": -8,
    "HST": -10,
    "BRT": -3,
    "BRST": -2,
    "ART": -3,
    "UYT": -3,
    "CLT": -4,
    "CLST": -3,
    "VET": -4,
    "COT": -5,
    "PET": -5,
}
# Without saying whether it is summer.
_REGIONS = {
    "ET": "America/New_York",
    "CT": "America/Chicago",
    "MT": "America/Denver",
    "PT": "America/Los_Angeles",
}


def zone_of_name(name: str) -> tzinfo | None:
    """The zone of an abbreviation, or of a region such as Europe/Berlin; None: not certain."""
    if "/" in name:
        return tz.gettz(name)
    if (hours := _HOURS.get(name.upper())) is not None:
        return timezone(timedelta(hours=hours))
    return tz.gettz(_REGIONS[name]) if name in _REGIONS else None
