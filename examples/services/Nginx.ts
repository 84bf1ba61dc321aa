/** What nginx needs to know. Relative paths begin at the folder that it is started with (`-p`). */
export const configuration = (listen: string, upstream: string): string =>
  `daemon off;
pid nginx.pid;
error_log stderr;
worker_processes 1;
events {}
http {
  access_log access.log;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {
    listen ${listen};
    location = /proxy/live { return 204; }
    location / {
      proxy_pass http://${upstream};
      proxy_read_timeout 10s;
    }
  }
}
`
