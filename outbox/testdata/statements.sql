-- SQLite
CREATE TABLE IF NOT EXISTS shop.outbox (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	kind       INTEGER NOT NULL DEFAULT 0,
	name       TEXT    NOT NULL,
	attempts   INTEGER NOT NULL DEFAULT 0,
	due_at     INTEGER NOT NULL DEFAULT 0,
	created_at INTEGER NOT NULL DEFAULT (CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
);
CREATE INDEX IF NOT EXISTS shop.outbox_due ON outbox (kind, due_at, id);
SELECT min(due_at) - CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) FROM shop.outbox WHERE kind = 0
SELECT count(*), COALESCE(CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - min(created_at), 0) FROM shop.outbox WHERE kind = 0
UPDATE shop.outbox SET due_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + 15000 WHERE id IN (SELECT id FROM shop.outbox WHERE kind = 0 AND due_at <= CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) ORDER BY due_at, id LIMIT 10) RETURNING id, name, attempts, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - created_at
DELETE FROM shop.outbox WHERE id IN (3, 5)
UPDATE shop.outbox SET attempts = attempts + 1, due_at = CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) + 1000 WHERE id IN (3, 5)
-- MySQL
CREATE TABLE IF NOT EXISTS shop.outbox (
	id         BIGINT   NOT NULL AUTO_INCREMENT PRIMARY KEY,
	kind       SMALLINT NOT NULL DEFAULT 0,
	name       TEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
	attempts   INT      NOT NULL DEFAULT 0,
	due_at     BIGINT   NOT NULL DEFAULT 0,
	created_at BIGINT   NOT NULL DEFAULT ((TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000)),
	KEY due (kind, due_at, id)
) ENGINE = InnoDB;
SELECT min(due_at) - (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000) FROM shop.outbox WHERE kind = 0
SELECT count(*), COALESCE((TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000) - min(created_at), 0) FROM shop.outbox WHERE kind = 0
SELECT id, name, attempts, (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000) - created_at FROM shop.outbox WHERE kind = 0 AND due_at <= (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000) ORDER BY due_at, id LIMIT 10 FOR UPDATE SKIP LOCKED
DELETE o FROM (SELECT 3 AS id UNION ALL SELECT 5 AS id) i STRAIGHT_JOIN shop.outbox o FORCE INDEX (PRIMARY) ON o.id = i.id
UPDATE (SELECT 3 AS id UNION ALL SELECT 5 AS id) i STRAIGHT_JOIN shop.outbox o FORCE INDEX (PRIMARY) ON o.id = i.id SET attempts = attempts + 1, due_at = (TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000) + 1000
-- PostgreSQL
CREATE TABLE IF NOT EXISTS shop.outbox (
	id         bigint   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	kind       smallint NOT NULL DEFAULT 0,
	name       text     NOT NULL,
	attempts   integer  NOT NULL DEFAULT 0,
	due_at     bigint   NOT NULL DEFAULT 0,
	created_at bigint   NOT NULL DEFAULT ((extract(epoch FROM statement_timestamp()) * 1000)::bigint)
);
CREATE INDEX IF NOT EXISTS outbox_due ON shop.outbox (kind, due_at, id);
SELECT min(due_at) - (extract(epoch FROM statement_timestamp()) * 1000)::bigint FROM shop.outbox WHERE kind = 0
SELECT count(*), COALESCE((extract(epoch FROM statement_timestamp()) * 1000)::bigint - min(created_at), 0) FROM shop.outbox WHERE kind = 0
SELECT id, name, attempts, (extract(epoch FROM statement_timestamp()) * 1000)::bigint - created_at FROM shop.outbox WHERE kind = 0 AND due_at <= (extract(epoch FROM statement_timestamp()) * 1000)::bigint ORDER BY due_at, id LIMIT 10 FOR UPDATE SKIP LOCKED
DELETE FROM shop.outbox WHERE id IN (3, 5)
UPDATE shop.outbox SET attempts = attempts + 1, due_at = (extract(epoch FROM statement_timestamp()) * 1000)::bigint + 1000 WHERE id IN (3, 5)
