-- backstay: irreversible
DROP TABLE b;
