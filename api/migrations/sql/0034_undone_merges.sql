-- Who stood for a member once: a command that is sent again may name one of a merge that was undone since.

CREATE INDEX member_merge_duplicate ON member_merge (duplicate_id);
