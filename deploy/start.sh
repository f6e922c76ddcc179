#!/bin/sh
# Starts a verb of `copl` in a container: the weights of the image serve a home folder that has none.
set -eu
umask 077
[ -e "$COPL_HOME/weights" ] || [ -L "$COPL_HOME/weights" ] || ln -s /opt/copl/weights "$COPL_HOME/weights"
exec copl "$@"
