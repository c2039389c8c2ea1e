"""Deliberate defects and the tests of this folder that have to notice them."""

from tests.mutants import Change, Mutant

MUTANTS = [
    Mutant(
        "a wrong secret passes",
        "test_api_keys.py -k another_secret",
        Change(
            "auth.api_keys:ApiKeys.authenticate",
            "record is None or principal is None or (not same)",
            "record is None or principal is None",
        ),
    ),
    Mutant(
        "a revoked key works",
        "test_api_keys.py -k 'revoked_key and memory'",
        Change(
            "auth.api_keys:ApiKeys.authenticate",
            "(status := record.status(self._clock())) != 'active'",
            "False",
        ),
    ),
    Mutant(
        "a revocation is never noticed",
        "test_api_keys.py -k 'revoked_key and memory'",
        Change(
            "auth.api_keys:ApiKeys.authenticate",
            "cached is None or cached[3] <= now",
            "cached is None",
        ),
    ),
    Mutant(
        "keys have no checksum",
        "test_api_keys.py -k checksum",
        Change(
            "auth.key_format:key_id_of",
            "_KEY.fullmatch(key) is None or _base62_decode(key[_CHECKSUM_OFFSET:]) != zlib.crc32(key[:_CHECKSUM_OFFSET])",
            "_KEY.fullmatch(key) is None",
        ),
    ),
    Mutant(
        "expired tokens work",
        "test_jwt.py -k K-33",
        Change(
            "auth.jwt:JwtAuthenticator._principal_from_claims",
            "times['exp'] <= now - LEEWAY_S",
            "False",
        ),
    ),
    Mutant(
        "a time may be a text",
        "test_jwt.py -k 'exp'",
        Change(
            "auth.jwt:JwtAuthenticator._principal_from_claims",
            "not all((type(t) in (int, float) and -MAX_TIME < t < MAX_TIME for t in times.values()))",
            "False",
        ),
    ),
    Mutant(
        "tokens live for ever",
        "test_jwt.py -k 9999",
        Change(
            "auth.jwt:JwtAuthenticator._principal_from_claims",
            "self._max_age_s + LEEWAY_S",
            "1e+20",
        ),
    ),
    Mutant(
        "several audiences are fine",
        "test_jwt.py -k K-23",
        Change("auth.jwt:JwtAuthenticator._verify_token", "True", "False"),
    ),
    Mutant(
        "weak HMAC keys",
        "test_jwt.py -k could_be_guessed",
        Change("auth.jwt:_check_strength", "weakness_of(key, MIN_HMAC_BYTES)", "None"),
    ),
    Mutant(
        "revoked tokens work",
        "test_jwt.py -k revoked_token",
        Change(
            "auth.jwt:JwtAuthenticator._check_revoked",
            "await revocations.is_token_revoked(token_id)",
            "False",
        ),
    ),
    Mutant(
        "a rotation undoes a revocation",
        "test_api_keys.py -k 'undo and memory'",
        Change(
            "auth.key_stores:MemoryKeyStore.replace_key", "self._keys.get(old.id) == old", "True"
        ),
    ),
    Mutant(
        "a name appears twice in a token",
        "test_jwt.py -k bad_token",
        Change("strict_json:_reject_duplicates", "len(value) != len(pairs)", "False"),
    ),
    Mutant(
        "key records are not signed",
        "test_api_keys.py -k 'changes_no_key and memory'",
        Change(
            "auth.api_keys:ApiKeys._cache_record",
            "record.id != key_id or not self.is_signed(record)",
            "record.id != key_id",
        ),
    ),
    Mutant(
        "successors are not asked about",
        "test_api_keys.py -k 'successors and memory'",
        Change("auth.api_keys:ApiKeys.revoke", "successors and with_successors is None", "False"),
    ),
    Mutant(
        "keys are remembered by the wall clock",
        "test_api_keys.py -k 'within_five and memory'",
        Change("auth.api_keys:ApiKeys.authenticate", "self._monotonic", "self._clock"),
    ),
    Mutant(
        "an unreadable key file is trusted for ever",
        "test_jwt.py -k refuses_after",
        Change(
            "auth.jwt:JwtAuthenticator._reload", "now - self._read_at >= STALE_AFTER_S", "False"
        ),
    ),
    Mutant(
        "an unreadable key file is not told",
        "test_jwt.py -k refuses_after",
        Change("auth.jwt:JwtAuthenticator._reload", "was_readable", "False", only=(1,)),
    ),
    Mutant(
        "an empty list of keys changes nothing",
        "test_jwt.py -k without_keys",
        Change(
            "auth.jwt:JwtAuthenticator._reload",
            "_parse_jwks(loads_unique(content), may_be_empty=True)",
            "_parse_jwks(loads_unique(content))",
        ),
    ),
    Mutant(
        "look-alike names are names",
        "test_identities.py -k token",
        Change("auth.identities:fault_of_name", "len(scripts) > 1", "False"),
    ),
    Mutant(
        "the runtime's names are given out",
        "test_identities.py",
        Change(
            "auth.identities:is_reserved",
            "user == OPERATOR or user.startswith(_RESERVED_PREFIXES)",
            "False",
        ),
    ),
    Mutant(
        "a record in another's place is taken",
        "test_api_keys.py -k another_s_place",
        Change(
            "auth.api_keys:ApiKeys._load_record",
            "record is None or record.id != key_id",
            "record is None",
        ),
    ),
]
