ALTER TABLE episodes ADD COLUMN sentiment text;
