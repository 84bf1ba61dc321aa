# A worker: does what SIGTERM says.
echo "{\"name\":\"worker\",\"pid\":$$}"
exec sleep 60
