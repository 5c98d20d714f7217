"""What the services share: ids, records, the ledger, the wire, the client and the command line."""
