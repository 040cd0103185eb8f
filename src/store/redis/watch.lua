
-- Follows guard.lua, for a batch that is written by a transaction.
-- Reply: {'ok'}.
return {'ok'}
