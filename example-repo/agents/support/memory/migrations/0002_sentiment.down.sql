ALTER TABLE episodes DROP COLUMN sentiment;
