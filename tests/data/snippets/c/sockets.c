#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>
#include <string.h>

int listen_on(unsigned short port)
{
    struct sockaddr_in addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0)
        return -1;
    memset(&addr, 0, sizeof(addr));
    addr.sin_family = AF_INET;
    addr.sin_port = htons(port);
    addr.sin_addr.s_addr = htonl(INADDR_ANY);
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        goto fail;
    if (listen(fd, 16) < 0)
        goto fail;
    return fd;
fail:
    close(fd);
    return -1;
}
