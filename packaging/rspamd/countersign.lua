-- Symbols for the mark of Countersign. Add this line to /etc/rspamd/rspamd.local.lua:
--
--   dofile('/etc/rspamd/countersign.lua')
--
-- Strangers cannot set the header: Countersign removes it from what comes in. So rspamd has to see the mail behind
-- Countersign, and all mail has to come that way. docs/content-filters.md says how.

config['regexp']['COUNTERSIGN_FALSE_BOUNCE'] = {
  re = 'Countersign-Result=/\\bwould=(reject|discard|quarantine|defer)\\b/H',
  score = 8.0,
  group = 'countersign',
  description = 'Countersign has marked this message: without an exemption it would be refused',
}
