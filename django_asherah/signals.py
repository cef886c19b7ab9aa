"""Signals, sent with ``send_robust`` in the thread where the event happened. None of them carries a secret.

Those that have a line in the audit log have ``by`` (str), too: who did it.

=================== ================================================================================================
signal              arguments
=================== ================================================================================================
``key_created``     ``key_id`` (str), ``created`` (int, Unix seconds)
``stale_key_kept``  ``key_id``, ``created``, ``cause`` (Exception): the record couldn't be read for its revoke check
``renewal_failed``  ``key_id``, ``created``, ``until`` (int, Unix seconds: its last moment for new writes), ``cause``: a
                    key expires soon, or has expired, and no newer one can be made
``key_passed_over`` ``key_id``, ``reason`` (str): the newest row of this id is no key for new writes
``key_rotated``     ``key_id``, ``created``: of the new key
``key_revoked``     ``key_id``, ``created``
``key_rewrapped``   ``key_id``, ``created``, ``regions`` (list of str): the regions it is wrapped for now
``key_loaded``      ``key_id``, ``created``, ``database`` (str, alias): from a dump
``keys_verified``   ``key_id``, ``created``: of the one key, None for all; ``system_keys``, ``intermediate_keys``,
                    ``problems`` (int), ``error``
``data_verified``   ``columns``, ``databases`` (lists of str), ``opened``, ``plaintext``, ``bad`` (int), ``sample`` (int
                    or None), ``error``
``data_reencrypted`` ``columns``, ``databases``, ``rewritten``, ``moved``, ``current``, ``bad`` (int), ``shard`` (str),
                    ``error``
``data_encrypted``  ``column`` (str), ``database``, ``values`` (int), ``bad``, ``error``
``data_decrypted``  the same
``data_copied``     ``column``, ``database``, ``old`` (str, the other library's field), ``values``, ``bad``, ``error``
``data_compared``   the same
``record_refused``  ``key_id``: of the partition that it should be of, ``created`` (int or None), ``reason`` (str)
``region_failed``   ``region`` (str), ``master_key`` (str), ``operation`` (str, the KMS action), ``consequence`` (str:
                    what follows from it), ``cause`` (Exception)
``kms_called``      ``region``, ``operation``, ``seconds`` (float), ``error`` (None, AWS's code or an exception's class)
``cache_missed``    ``key_id``: the metastore was asked for a key that was not cached, or due for its revoke check
=================== ================================================================================================
"""

from __future__ import annotations

from django.dispatch import Signal

key_created = Signal()
stale_key_kept = Signal()
renewal_failed = Signal()
key_passed_over = Signal()
key_rotated = Signal()
key_revoked = Signal()
key_rewrapped = Signal()
region_failed = Signal()
kms_called = Signal()
cache_missed = Signal()
key_loaded = Signal()
keys_verified = Signal()
data_verified = Signal()
data_reencrypted = Signal()
data_encrypted = Signal()
data_decrypted = Signal()
data_copied = Signal()
data_compared = Signal()
record_refused = Signal()
