nodeprov { schema = 1 }
net.core.somaxconn = 4096
