SELECT id, customer, told_at, summary FROM episodes WHERE false;
