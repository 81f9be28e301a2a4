"""The outbox: e-mails as rows, written with the change they tell of; claimed, sent and settled by workers."""
