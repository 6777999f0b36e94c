# The node image and its boot test. Included by the Makefile of the repository,
# whose target "build" makes bin/nodeprov, bin/lbd and bin/probe.

.PHONY: image test-vm clean-image

image: build ## node image in images/out/node (Debian, cloud-init, nodeprov, lbd); needs root
	images/build.sh

test-vm: build ## boot the image in QEMU, on two kernels, and test it from inside; needs root
	images/test-vm.sh

clean-image:
	rm -rf images/out .cache/images
