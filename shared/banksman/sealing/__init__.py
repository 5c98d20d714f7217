"""The seal of the audit log: what is hashed, the tree, its signed heads, and how anybody checks them.

leaf.py     an event as canonical bytes
tree.py     the Merkle tree of RFC 9162: roots and proofs
heads.py    a signed statement: so many events, this root
sealer.py   new events → leaves and a head
check.py    does the log still say what was sealed
proof.py    one request's events, provable away from the database
anchors.py  heads written down where the database's owner cannot reach them
"""
