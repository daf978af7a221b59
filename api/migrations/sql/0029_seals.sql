-- What was written stays provable: a change behind the application's back is found and named. Big tables carry a hash in
-- each row, as movements do; of the others each column is hashed into a seal beside them when the posting role writes it.
-- Whoever else writes (the owner, a superuser, with triggers or without) leaves no seal, or one that does not fit.

-- ---------------------------------------------------------------- commands, lots, pending awards: a hash in the row

ALTER TABLE command ADD COLUMN row_hash bigint NOT NULL DEFAULT 0;
ALTER TABLE command DISABLE TRIGGER append_only;
UPDATE command AS c SET row_hash = hash_record_extended(ROW(c.id, c.partner_id, c.idempotency_key, c.fingerprint, c.kind,
        c.account_id, c.member_id, c.store_id, c.reference, c.reference_unique, c.channel, c.amount_minor, c.eligible_minor,
        c.lines, c.points, c.whole, c.reverses_id, c.reason, c.input_digest, c.created_member, c.declined_points,
        c.occurred_at, c.recorded_at, c.period_id), 0);
ALTER TABLE command ENABLE TRIGGER append_only;
COMMENT ON COLUMN command.row_hash IS 'Of every other column, when it was written; 0: not written by the application';

-- What may change later is a part of its own (#): an update takes the old part out and puts the new one in. Were all of it
-- computed again, an update would seal what somebody else had changed before.
ALTER TABLE lot ADD COLUMN row_hash bigint NOT NULL DEFAULT 0;
UPDATE lot SET row_hash = hash_record_extended(ROW(account_id, id, transaction_id, issuer_id, funder_id, terms_id, price_micro,
        breakage_share_ppm, granted, earned_at, parent_id, rolling_months), 0)
    # hash_record_extended(ROW(expires_at, grace_until), 0);
COMMENT ON COLUMN lot.row_hash IS 'Of every column but remaining and reserved, which lot_use says; 0: not written by the application';

ALTER TABLE pending_award ADD COLUMN row_hash bigint NOT NULL DEFAULT 0;
UPDATE pending_award SET row_hash = hash_record_extended(ROW(account_id, id, transaction_id, command_id, member_id, partner_id,
        issuer_id, funder_id, terms_id, rule_id, budget_id, granted, release_at, earned_at), 0)
    # hash_record_extended(ROW(waits_for_payment), 0);
GRANT UPDATE (row_hash) ON pending_award TO coalition_posting;
COMMENT ON COLUMN pending_award.row_hash IS 'Of every column but open_points and reserved_micro; 0: not written by the application';

-- ---------------------------------------------------------------- all others: a seal beside the row

CREATE TABLE sealed_table (
    relation            text PRIMARY KEY,
    key_sql             text NOT NULL,
    columns             text[] NOT NULL
);
COMMENT ON TABLE sealed_table IS 'Tables whose rows are sealed: what names a row r in its seal, and which columns it seals, in this order';

CREATE TABLE row_seal (
    relation            text NOT NULL,
    key                 text NOT NULL,
    hashes              bigint[] NOT NULL,
    PRIMARY KEY (relation, key)
);
COMMENT ON TABLE row_seal IS 'A hash of each sealed column of a row, as it was written';

CREATE FUNCTION seal_sql(columns text[]) RETURNS text LANGUAGE sql STABLE
    RETURN (SELECT 'ARRAY[' || string_agg(format('hash_record_extended(ROW(r.%I), 0)', c), ', ' ORDER BY place) || ']'
              FROM unnest(columns) WITH ORDINALITY AS u (c, place));
COMMENT ON FUNCTION seal_sql(text[]) IS 'SQL of the hashes of these columns of a row r: of each its own, so that it can be said which one changed';

CREATE FUNCTION seal_table(sealed text, named_by text, VARIADIC free text[] DEFAULT ARRAY[]::text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    chosen text[] := (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute
                       WHERE attrelid = sealed::regclass AND attnum > 0 AND NOT attisdropped AND NOT attname = ANY (free));
BEGIN
    DELETE FROM sealed_table WHERE relation = sealed;
    INSERT INTO sealed_table VALUES (sealed, named_by, chosen);
    DELETE FROM row_seal WHERE relation = sealed;
    EXECUTE format('INSERT INTO row_seal SELECT %L, %s, %s FROM %I AS r', sealed, named_by, seal_sql(chosen), sealed);
END $$;
COMMENT ON FUNCTION seal_table(text, text, text[]) IS
    'For migrations: seals all rows of a table as they are, but for its free columns; again after it got a column or its rows were changed';

-- New rows, a statement's at once.
CREATE FUNCTION seal_new_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    of_table sealed_table := (SELECT t FROM sealed_table AS t WHERE t.relation = TG_TABLE_NAME);
BEGIN
    EXECUTE format('INSERT INTO row_seal SELECT %L, %s, %s FROM new_rows AS r', TG_TABLE_NAME, of_table.key_sql,
                   seal_sql(of_table.columns));
    RETURN NULL;
END $$;

-- Of a changed row only the columns that this change touched are sealed again.
CREATE FUNCTION seal_changed_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    of_table sealed_table := (SELECT t FROM sealed_table AS t WHERE t.relation = TG_TABLE_NAME);
BEGIN
    IF TG_OP = 'DELETE' THEN
        EXECUTE format('DELETE FROM row_seal AS s USING (SELECT ($1).*) AS r WHERE s.relation = %L AND s.key = %s::text',
                       TG_TABLE_NAME, of_table.key_sql) USING OLD;
    ELSE
        EXECUTE format('UPDATE row_seal AS s SET hashes = (
                            SELECT array_agg(CASE WHEN was = is_now THEN held ELSE is_now END ORDER BY place)
                              FROM unnest(b.hashes, a.hashes, s.hashes) WITH ORDINALITY AS h (was, is_now, held, place))
                          FROM (SELECT %1$s AS key, %2$s AS hashes FROM (SELECT ($1).*) AS r) AS b,
                               (SELECT %2$s AS hashes FROM (SELECT ($2).*) AS r) AS a
                         WHERE s.relation = %3$L AND s.key = b.key::text',
                       of_table.key_sql, seal_sql(of_table.columns), TG_TABLE_NAME) USING OLD, NEW;
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION broken_seals(sealed text, most integer) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
DECLARE
    of_table sealed_table := (SELECT t FROM sealed_table AS t WHERE t.relation = sealed);
BEGIN
    IF of_table IS NULL THEN
        RETURN NEXT format('%s is no sealed table any more', sealed);
        RETURN;
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT CASE WHEN s.key IS NULL THEN format(''%%s %%s was not written by the application'', $1, r.key)
                     WHEN r.key IS NULL THEN format(''%%s %%s is gone'', $1, s.key)
                     ELSE format(''%%s %%s was changed: %%s'', $1, r.key,
                                 coalesce((SELECT string_agg(c, '', '' ORDER BY place)
                                    FROM unnest($2, r.hashes, s.hashes) WITH ORDINALITY AS h (c, is_now, was, place)
                                   WHERE is_now IS DISTINCT FROM was), '''')) END
           FROM (SELECT (%s)::text AS key, %s AS hashes FROM %I AS r) AS r
           FULL JOIN (SELECT key, hashes FROM row_seal WHERE relation = $1) AS s ON s.key = r.key
          WHERE r.hashes IS DISTINCT FROM s.hashes
          ORDER BY coalesce(r.key, s.key) LIMIT $3', of_table.key_sql, seal_sql(of_table.columns), sealed)
       USING sealed, of_table.columns, most;
END $$;
COMMENT ON FUNCTION broken_seals(text, integer) IS 'Rows of a sealed table that are not as they were written, in words: which, and which of their columns';

GRANT SELECT ON sealed_table, row_seal TO coalition_posting;

SELECT seal_table('installation', 'r.only_row');
SELECT seal_table('programme', 'r.only_row');
SELECT seal_table('partner', 'r.id');
SELECT seal_table('store', 'r.id');
SELECT seal_table('terms', 'r.id');
SELECT seal_table('budget_plan', 'r.id');
SELECT seal_table('earn_rule', 'r.id');
SELECT seal_table('campaign', 'r.id');
SELECT seal_table('tax_rate', 'r.id');
SELECT seal_table('deposit_requirement', 'r.partner_id');
-- What a close makes is made again when verifying, and stands in the chain of certificates.
SELECT seal_table('period', 'r.id', 'pool_micro', 'pool_change_micro', 'margin_micro', 'operator_net_minor', 'tax_micro',
    'receivable_change_micro', 'deposit_change_micro', 'certificate_sha256', 'previous_sha256');
SELECT seal_table('member', 'r.id');
SELECT seal_table('member_identifier', 'r.kind || '' '' || encode(sha256(convert_to(r.value, ''UTF8'')), ''hex'')');
SELECT seal_table('member_merge', 'r.command_id');
SELECT seal_table('pool_member', 'r.command_id');
SELECT seal_table('early_reversal', 'r.id');
SELECT seal_table('budget', 'r.id', 'consumed_micro', 'reserved_micro');
SELECT seal_table('proposal', 'r.id');
SELECT seal_table('dispute', 'r.id');
SELECT seal_table('pool', 'r.id');
SELECT seal_table('hold', 'concat_ws('' '', r.account_id, r.id)', 'captured', 'released', 'state');
SELECT seal_table('debt', 'concat_ws('' '', r.account_id, r.id)', 'open_points');
SELECT seal_table('float_block', 'r.id', 'used_micro');
SELECT seal_table('adjustment', 'r.entry_id');
SELECT seal_table('overdraft', 'r.proposal_id');
SELECT seal_table('budget_alert', 'r.id');
SELECT seal_table('dispute_transaction', 'concat_ws('' '', r.dispute_id, r.command_id)');
SELECT seal_table('payment', 'r.id');
SELECT seal_table('deposit_payment', 'r.id');
SELECT seal_table('partner_default', 'r.proposal_id');
SELECT seal_table('default_offset', 'concat_ws('' '', r.proposal_id, r.period_id)');
SELECT seal_table('recovery', 'r.entry_id');
SELECT seal_table('final_statement', 'concat_ws('' '', r.period_id, r.partner_id)');

-- ---------------------------------------------------------------- who seals: the posting role, and nobody else

CREATE TRIGGER seal_new AFTER INSERT ON programme REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON partner REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON store REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON terms REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON budget_plan REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON earn_rule REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON campaign REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON tax_rate REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON deposit_requirement REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON period REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON member REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON member_identifier REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON member_merge REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON pool_member REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON early_reversal REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON budget REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON proposal REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON dispute REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON pool REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON hold REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON debt REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON float_block REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON adjustment REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON overdraft REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON budget_alert REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON dispute_transaction REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON payment REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON deposit_payment REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON partner_default REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON default_offset REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON recovery REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();
CREATE TRIGGER seal_new AFTER INSERT ON final_statement REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_new_rows();

CREATE TRIGGER seal_change AFTER UPDATE ON programme FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON partner FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON store FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON terms FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON budget_plan FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON earn_rule FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON campaign FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON tax_rate FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON deposit_requirement FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON period FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON member FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON member_identifier FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON member_merge FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON pool_member FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON early_reversal FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
-- A purchase changes what its window consumed, and pays for this question only.
CREATE TRIGGER seal_change AFTER UPDATE ON budget FOR EACH ROW WHEN (current_user = 'coalition_posting'
    AND (OLD.plan_id, OLD.limit_micro, OLD.overdraft_micro, OLD.alerted_at) IS DISTINCT FROM (NEW.plan_id, NEW.limit_micro, NEW.overdraft_micro, NEW.alerted_at))
    EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON proposal FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_change AFTER UPDATE ON dispute FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_end AFTER DELETE ON terms FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_end AFTER DELETE ON budget_plan FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_end AFTER DELETE ON earn_rule FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_end AFTER DELETE ON campaign FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_end AFTER DELETE ON tax_rate FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
CREATE TRIGGER seal_end AFTER DELETE ON member_identifier FOR EACH ROW WHEN (current_user = 'coalition_posting') EXECUTE FUNCTION seal_changed_row();
