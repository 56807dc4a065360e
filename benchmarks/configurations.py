"""What the configuration files of the peers say."""

from __future__ import annotations

SQUID = """\
{port}
{access}
visible_hostname benchmark.test
cache deny all
access_log {log}
max_filedescriptors 16384
shutdown_lifetime 0 seconds
pinger_enable off
netdb_filename none
icp_port 0
dns_nameservers 127.0.0.1
pid_filename {directory}/squid.pid
coredump_dir {directory}
cache_log {directory}/cache.log
logfile_rotate 0
"""

# All helpers at once: on demand squid adds one in seconds.
SQUID_NTLM = """\
auth_param ntlm program {helper}
auth_param ntlm children 40 startup=40 idle=1 queue-size=2000
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all"""

TINYPROXY = """\
Listen 127.0.0.1
Port {port}
Timeout 600
MaxClients 1024
LogLevel Critical
LogFile "{directory}/log"
PidFile "{directory}/pid"
"""

APACHE = """\
ServerRoot {directory}
ServerName benchmark.test
PidFile {directory}/pid
ErrorLog {directory}/error.log
LogLevel crit
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
LoadModule proxy_connect_module {modules}/mod_proxy_connect.so
Listen 127.0.0.1:{port}
ProxyRequests On
AllowCONNECT 1-65535
KeepAlive On
MaxKeepAliveRequests 0
ServerLimit 1
StartServers 1
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 128
<Proxy "*">
Require all granted
</Proxy>
"""

# Squid's own ntlm_fake_auth sends no target information, without which cntlm
# cannot speak NTLMv2.
CNTLM = """\
Username {user}
Domain {domain}
Password {password}
Auth NTLM2SR
Proxy 127.0.0.1:{proxy}
Listen 127.0.0.1:{port}
"""
