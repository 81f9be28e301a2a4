"""The product: rules, services, the ledger, the outbox and mail. Imports neither `web` nor `jobs`."""
