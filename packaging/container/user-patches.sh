#!/bin/bash
# docker-mailserver runs this after it has written its config, each time that it starts.
set -e
milters=$(postconf -h smtpd_milters)
own=$(postconf -h non_smtpd_milters)
# With ENABLE_SRS=1, docker-mailserver maps recipients by postsrsd: leave that off, and set srs_domain in countersign.toml.
postconf -e \
  "smtpd_milters = ${milters:+$milters, }inet:172.30.25.2:10230" \
  "non_smtpd_milters = ${own:+$own, }inet:172.30.25.2:10230" \
  'milter_default_action = tempfail' \
  'recipient_canonical_maps = socketmap:inet:172.30.25.2:10231:strip' \
  'recipient_canonical_classes = envelope_recipient' \
  'in_flow_delay = 0'
