"""Signals, sent with ``send_robust`` in the thread where the event happened. None of them carries a secret.

=================== ================================================================================================
signal              arguments
=================== ================================================================================================
``key_created``     ``key_id`` (str), ``created`` (int, Unix seconds)
``stale_key_kept``  ``key_id``, ``created``, ``cause`` (Exception): the record couldn't be read for its revoke check
``renewal_failed``  ``key_id``, ``created``, ``until`` (int, Unix seconds: its last moment for new writes), ``cause``: a
                    key expires soon, or has expired, and no newer one can be made
``key_passed_over`` ``key_id``, ``reason`` (str): the newest row of this id is no key for new writes
``record_refused``  ``key_id``, ``cause``: a record was damaged, tampered with, or another partition's
``data_reencrypted`` ``columns`` (list of str), ``rewritten``, ``moved``, ``current``, ``bad`` (int), ``shard`` (str),
                    ``broken_off`` (str: the class of what ended it early, or nothing)
``data_verified``   ``columns``, ``proven``, ``plaintext``, ``bad``, ``broken_off``
``keys_verified``   ``system_keys``, ``intermediate_keys``, ``bad`` (int), ``broken_off``
``key_rotated``     ``key_id``, ``created``: of the new key
``key_revoked``     ``key_id``, ``created``
``key_rewrapped``   ``key_id``, ``created``, ``regions`` (list of str): the regions it is wrapped for now
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
record_refused = Signal()
data_reencrypted = Signal()
data_verified = Signal()
keys_verified = Signal()
key_rotated = Signal()
key_revoked = Signal()
key_rewrapped = Signal()
region_failed = Signal()
kms_called = Signal()
cache_missed = Signal()
