CREATE TABLE episodes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    told_at timestamptz NOT NULL DEFAULT now(),
    summary text NOT NULL
);
CREATE INDEX episodes_customer ON episodes (customer, told_at);
